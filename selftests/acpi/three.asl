// SPDX-License-Identifier: GPL-2.0
//
// There is more than two halves.
//
// Expect: ADDR has 3 elements, expected 2

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG08", 1)
{
    Scope (\_SB)
    {
        Device (SG08)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "three")
            Name (ADDR, Package () { 0x000F0000, 0x00000000, 0x00000000 })
        }
    }
}
