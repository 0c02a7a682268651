"""What systemd reads: units for the volumes, and the lines of fstab and crypttab that they are made from. Pure."""
