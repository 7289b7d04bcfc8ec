// SPDX-License-Identifier: GPL-2.0
//
// The ID is in reserved memory, and the rest of its page is memory that the kernel may use: user
// space cannot have the page.
//
// Expect: nothing

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG23", 1)
{
    Scope (\_SB)
    {
        Device (SG23)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "shared")
            Name (ADDR, Package () { 0x0009FC00, 0x00000000 })
        }
    }
}
