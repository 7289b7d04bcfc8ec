// SPDX-License-Identifier: GPL-2.0
//
// The low half is a string.
//
// Expect: element 0 of ADDR is no integer

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG09", 1)
{
    Scope (\_SB)
    {
        Device (SG09)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "string")
            Name (ADDR, Package () { "0x000F0000", 0x00000000 })
        }
    }
}
