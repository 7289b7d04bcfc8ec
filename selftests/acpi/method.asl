// SPDX-License-Identifier: GPL-2.0
//
// ADDR is a method, and nothing is wrong with it. The memory is the system's ROM, which does
// not change.
//
// Expect: nothing

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG20", 1)
{
    Scope (\_SB)
    {
        Device (SG20)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "method")
            Method (ADDR)
            {
                Return (Package () { 0x000F0000, 0x00000000 })
            }
        }
    }
}
