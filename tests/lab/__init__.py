"""The machines the product is tested in: real dm-crypt and real boots, on an ordinary computer."""
