"""Face detectors behind one protocol; nothing above this room knows which one it uses."""
