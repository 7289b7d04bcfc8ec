// SPDX-License-Identifier: GPL-2.0
//
// The address is in the window to the PCI devices.
//
// Expect: ADDR 0xb0000000 is not in reserved memory

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG16", 1)
{
    Scope (\_SB)
    {
        Device (SG16)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "hole")
            Name (ADDR, Package () { 0xB0000000, 0x00000000 })
        }
    }
}
