#!/bin/sh
# In an initrd without systemd: starts the agent, beside the network and the devices, once udev listens.

/usr/bin/cryptpilot-initrd &
