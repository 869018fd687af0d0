"""The web dashboard (Streamlit). It speaks to the bank over REST alone; `main` is the script that Streamlit runs."""
