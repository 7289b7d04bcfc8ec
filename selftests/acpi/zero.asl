// SPDX-License-Identifier: GPL-2.0
//
// The address is 0, which is what QEMU says before its firmware has found a place.
//
// Expect: ADDR is 0

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG12", 1)
{
    Scope (\_SB)
    {
        Device (SG12)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "zero")
            Name (ADDR, Package () { 0x00000000, 0x00000000 })
        }
    }
}
