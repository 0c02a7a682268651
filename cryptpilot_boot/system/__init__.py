"""The only room that runs a program or touches /dev, /sys and /proc. It knows no volume."""
