"""Other people's packages on our pictures: same split, same budget (``python -m tests.benchmarks.peers``)."""
