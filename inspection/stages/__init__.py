"""The stages of the loop, each a function of names and ids: flows and the command line call these."""
