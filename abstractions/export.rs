// SPDX-License-Identifier: GPL-2.0

//! Functions that other modules can call.
//!
//! C header: [`include/linux/export.h`](srctree/include/linux/export.h)

/// Defines a function without arguments and result that has C linkage, and exports it to modules
/// whose license is compatible with the GPL.
///
/// This emits what `EXPORT_SYMBOL_GPL` emits in C: an entry of the section `.export_symbol`, from
/// which modpost makes the entry of the symbol table of this module, and the line of
/// `Module.symvers`. An entry is the license, the namespace (which is empty), and, aligned, the
/// address. The name of the entry is the name of the symbol after `__export_symbol_`.
///
/// The function must have a prototype in a C header. Nothing compares the two; for a function
/// without arguments and result there is nothing to get wrong but the name.
//
// The kernel does the same for its own Rust code by a C file (`rust/exports.c`), for which a module
// of one Rust file has no place. A kernel with CONFIG_MODVERSIONS has no version of a symbol that is
// exported like this, as modpost says in a warning.
macro_rules! export_symbol_gpl {
    ($(#[$attribute:meta])* extern "C" fn $name:ident() $body:block) => {
        $(#[$attribute])*
        #[no_mangle]
        extern "C" fn $name() $body

        ::core::arch::global_asm!(
            r#".section ".export_symbol","a""#,
            concat!("__export_symbol_", stringify!($name), ":"),
            r#".asciz "GPL""#,
            r#".asciz """#,
            ".balign {size}",
            concat!(".{size}byte ", stringify!($name)),
            ".previous",
            size = const size_of::<usize>(),
        );
    };
}

pub(crate) use export_symbol_gpl;
