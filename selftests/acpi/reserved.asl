// SPDX-License-Identifier: GPL-2.0
//
// Nothing is wrong with this one. The memory is some that the firmware of a QEMU machine with 512
// MiB reserves, and leaves empty.
//
// Expect: nothing

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG21", 1)
{
    Scope (\_SB)
    {
        Device (SG21)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "reserved")
            Name (ADDR, Package () { 0x1FFF0008, 0x00000000 })
        }
    }
}
