"""One file for each kind of trained model: each makes a Captured."""
