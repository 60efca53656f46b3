"""Studies of measured and modelled sweeps: what drives the time, how often the best cut moves, whether moving pays."""
