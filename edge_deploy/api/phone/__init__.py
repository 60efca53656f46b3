"""Projects for phones: templates, the code before and after a model in portable C, and what is written around them."""
