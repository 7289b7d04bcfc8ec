// SPDX-License-Identifier: GPL-2.0
//
// There is room for a high half, and none in it.
//
// Expect: element 1 of ADDR is no integer

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG11", 1)
{
    Scope (\_SB)
    {
        Device (SG11)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "uninitialized")
            Name (ADDR, Package (2) { 0x000F0000 })
        }
    }
}
