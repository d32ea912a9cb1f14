"""The agent on the line computer: camera in, durable signalled verdict out. Nothing is imported here but `os`."""

import os

# ONNX Runtime (seen in 1.32) reports what it runs to its maker and keeps a database for that in the user's home. Read when
# it is loaded; child processes inherit it. Whoever wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
