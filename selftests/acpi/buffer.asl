// SPDX-License-Identifier: GPL-2.0
//
// ADDR is the address as a buffer.
//
// Expect: ADDR is no package

DefinitionBlock ("", "SSDT", 2, "SYSGEN", "SG05", 1)
{
    Scope (\_SB)
    {
        Device (SG05)
        {
            Name (_HID, "VMGENCTR")
            Name (_UID, "buffer")
            Name (ADDR, Buffer () { 0x00, 0x00, 0x0F, 0x00, 0x00, 0x00, 0x00, 0x00 })
        }
    }
}
