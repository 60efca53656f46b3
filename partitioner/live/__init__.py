"""The edge half at work: requests run head, wire and tail while the controller moves the cut, and none is lost."""
