"""The engine over a real store and a manual clock."""
