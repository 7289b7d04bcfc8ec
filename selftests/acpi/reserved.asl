// SPDX-License-Identifier: GPL-2.0
//
// Nothing is wrong with this one. The memory is the system's ROM, which does not change.
//
// Expect: notifications of this VMGenID device are heard

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG21", 1)
{
    Scope (\_SB)
    {
        Device (SG21)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "reserved")
            Name (ADDR, Package () { 0x000F0008, 0x00000000 })
        }
    }
}
