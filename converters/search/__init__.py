"""Mixed precision: how much each layer costs at each width, and which assignments are worth converting."""
