"""What build.py does, one subject a file. It starts with the standard library of any Python from 3.9 on."""
