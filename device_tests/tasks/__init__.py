"""Tasks: which data, which metric, which floor; one TOML file each."""
