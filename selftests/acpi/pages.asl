// SPDX-License-Identifier: GPL-2.0
//
// The ID is in reserved memory, in two pages of it: user space cannot have one page of it.
//
// Expect: nothing

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG22", 1)
{
    Scope (\_SB)
    {
        Device (SG22)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "pages")
            Name (ADDR, Package () { 0x000F0FF8, 0x00000000 })
        }
    }
}
