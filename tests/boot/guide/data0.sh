sudo bash -c 'cat > /etc/cryptpilot/volumes/data0.toml << EOF
# Volume configurations.
dev = "/dev/nvme1n1p1" # Specify the block device you want to use, which is an empty partition of the cloud disk. In this example, /dev/nvme1n1p1 is used.
volume = "data0" # Specify the volume name. In this example, data0 is used.
auto_open = false # Specify whether to automatically open the volume on system startup. true means that the volume is automatically opened on system startup, while false means that manual opening is required.
makefs = "ext4" # Specify the type of the file system you want to create. In this example, Ext4 is used.
integrity = true # Specify whether to enable data integrity support. true means that data integrity support is enabled, while false means that it is disabled.
# Secret configurations.
[encrypt.otp] # Specify the secret storage method. In this example, OTP is used.
EOF'
