#!/bin/sh
# Runs before each shell that an image without [boot] emergency_shell might give when a boot cannot go on: in dracut's
# hooks, and before the programs of systemd's units for it. Otherwise an attacker who can withhold a disk or the network
# would get a root shell on the console, beside the credentials in the image.
#
# It ends, with 0, only if the kernel command line itself, which is measured, asks for a shell: rd.shell or rd.break.
# Else the failure stays on the console for a while with the boot report, and the machine is turned off, or does what
# rd.emergency= says. What is in the image's own /etc/cmdline.d does not count: rd.hostonly=0 has dracut remove that.

seconds=60 # docs/boot.md has it too

shell=
point=
action=poweroff
read -r words < /proc/cmdline
set -f
for word in $words; do
    case $word in
        rd.shell | rd.shell=1 | rd.shell=y | rd.shell=yes | rd.shell=t | rd.shell=true | rd.shell=on) shell=yes ;;
        rd.shell=*) shell= ;;
        rd.break | rd.break=*) point=yes ;;
        rd.emergency=reboot | rd.emergency=halt | rd.emergency=poweroff) action=${word#*=} ;;
    esac
done
set +f
[ -z "$shell$point" ] || exit 0

# no key on the console ends this
trap '' HUP INT QUIT TERM TSTP TTIN TTOU

case $action in
    reboot) next="the machine reboots in $seconds seconds" ;;
    halt) next="the machine stays like this" ;;
    *) next="the machine is turned off in $seconds seconds" ;;
esac

# In the background: a console without a reader may block, and must not keep the machine on.
{
    command -v plymouth > /dev/null && plymouth quit
    /usr/bin/cryptpilot boot report
    echo "cryptpilot: this boot has failed, see above; there is no shell in this image, and $next"
} < /dev/null > /dev/console 2>&1 &

# A way in other than a shell belongs here: a prompt for a volume's recovery key.

sleep "$seconds"
while [ "$action" = halt ]; do
    sleep 3600
done
# --force: without stopping units first. Some of them may hang, because this boot lacks a disk or the network.
if [ -d /run/systemd/system ]; then
    systemctl --force --no-block "$action"
    trap - TERM # or systemd waits for this
    sleep 60
fi
# Neither waits for a disk.
case $action in
    reboot) echo b > /proc/sysrq-trigger ;;
    *) echo o > /proc/sysrq-trigger ;;
esac
sleep 10
"$action" -n -f
while :; do
    sleep 3600
done
