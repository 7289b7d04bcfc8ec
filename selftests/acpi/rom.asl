// SPDX-License-Identifier: GPL-2.0
//
// The ID is in the system's ROM, in whose pages there are other things: user space cannot have one of
// them.
//
// Expect: nothing

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG24", 1)
{
    Scope (\_SB)
    {
        Device (SG24)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "rom")
            Name (ADDR, Package () { 0x000F0008, 0x00000000 })
        }
    }
}
