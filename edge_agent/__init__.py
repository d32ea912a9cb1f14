"""The agent on the line computer: camera in, durable signalled verdict out. Nothing is imported here."""
