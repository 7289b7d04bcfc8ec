// SPDX-License-Identifier: GPL-2.0
//
// The high half is a package.
//
// Expect: element 1 of ADDR is no integer

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG10", 1)
{
    Scope (\_SB)
    {
        Device (SG10)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "package")
            Name (ADDR, Package () { 0x000F0000, Package () { 0x00000000 } })
        }
    }
}
