// SPDX-License-Identifier: GPL-2.0
//
// There is nothing at that address.
//
// Expect: ADDR 0x4000000000 is not in reserved memory

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG17", 1)
{
    Scope (\_SB)
    {
        Device (SG17)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "beyond")
            Name (ADDR, Package () { 0x00000000, 0x00000040 })
        }
    }
}
