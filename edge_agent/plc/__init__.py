"""The handshake with the line's controller: a pure state machine, the register map, and the wires it runs over."""
