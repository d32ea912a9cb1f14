"""The agent's own version, written into every verdict and report. A constant: reading package metadata costs 30 ms."""

AGENT_VERSION = "0.1.0"
