"""What `libraries.py` compares: for each library one module, with a short function for each case."""
