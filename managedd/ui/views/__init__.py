"""One module per place in the navigation: what each page shows."""
