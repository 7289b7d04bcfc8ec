// SPDX-License-Identifier: GPL-2.0
//
// The high half is not there.
//
// Expect: ADDR has 1 elements, expected 2

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG07", 1)
{
    Scope (\_SB)
    {
        Device (SG07)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "one")
            Name (ADDR, Package () { 0x000F0000 })
        }
    }
}
