"""What is kept and computed: one thin module per asset, and the pure transforms."""
