// SPDX-License-Identifier: GPL-2.0
//
// ADDR is a method that returns nothing.
//
// Expect: ADDR is no package

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG03", 1)
{
    Scope (\_SB)
    {
        Device (SG03)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "nothing")
            Method (ADDR)
            {
            }
        }
    }
}
