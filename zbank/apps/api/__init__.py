"""The REST bridge: HTTP and JSON in front of the Python client. It holds no money and no state of its own."""
