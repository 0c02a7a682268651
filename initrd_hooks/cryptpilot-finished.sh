#!/bin/sh
# In an initrd without systemd: keeps dracut in its main loop for good if the agent says that this boot cannot go on. That
# it is still at work does not: the root may be there already, and then cryptpilot-pivot.sh waits for it.

! [ -e /run/cryptpilot/stop-boot ]
