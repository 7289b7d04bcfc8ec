// SPDX-License-Identifier: GPL-2.0
//
// ADDR is the address itself.
//
// Expect: ADDR is no package

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG04", 1)
{
    Scope (\_SB)
    {
        Device (SG04)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "integer")
            Name (ADDR, 0x000F0000)
        }
    }
}
