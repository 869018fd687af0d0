"""What a browser gets of a running dashboard, without the browser: `-m … URL` prints the texts of its page.

It ends when one of the texts stands there that are given after the address, and fails when the page is whole without one.
"""

from __future__ import annotations

import sys

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

LIMIT_S = 20.0


def main(url: str, *wanted: str) -> int:
    """Open the page as a browser does; gives the exit code."""
    address = f"{url.replace('http', 'ws', 1)}/_stcore/stream"
    with connect(address, subprotocols=[Subprotocol("streamlit")], origin=Origin(url), proxy=None) as socket:
        request = BackMsg()
        request.rerun_script.query_string = ""
        socket.send(request.SerializeToString())
        while True:
            message = ForwardMsg()
            message.ParseFromString(socket.recv(LIMIT_S, decode=False))
            text = str(message)
            if message.WhichOneof("type") == "delta":
                print(text)
            if any(words in text for words in wanted):
                return 0
            if message.WhichOneof("type") == "script_finished":
                return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
