// SPDX-License-Identifier: MIT OR Apache-2.0

//! The border to OpenSSL, with all unsafe code of this crate.
//!
//! The core hands over its functions in a table, and gets ours in another one. With those of the core,
//! the default provider is found as it is active in the same library context: what it makes, and the
//! ciphers that it uses for that, are exactly those of a program without this provider. Its table of
//! functions for `CTR-DRBG` is kept, and a table with the same entries is offered, in which each
//! function calls the one that it stands for. A context of ours holds one of the default provider's;
//! generators call their parents through tables as well, so that ours and others can be mixed.
//!
//! No function does more than that by itself; what there is to decide is in [`crate::heed`].

#![expect(unsafe_code)]

use std::cell::Cell;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_uchar;
use std::ffi::c_uint;
use std::ffi::c_void;
use std::mem::transmute;
use std::ops::RangeInclusive;
use std::panic::catch_unwind;
use std::ptr;
use std::ptr::NonNull;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use sysgenid::Options;

use crate::heed::Generator;
use crate::heed::Heed;
use crate::heed::Known;
use crate::message;

use self::bindings::OSSL_ALGORITHM;
use self::bindings::OSSL_CORE_HANDLE;
use self::bindings::OSSL_DISPATCH;
use self::bindings::OSSL_PARAM;

/// What `build.rs` makes of OpenSSL's headers.
#[expect(
    dead_code,
    non_camel_case_types,
    reason = "they are OpenSSL's, and not all are used"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/openssl.rs"));
}

/// The provider and the algorithm that are wrapped.
const WRAPPED_PROVIDER: &CStr = c"default";
const WRAPPED_ALGORITHM: &str = "CTR-DRBG";

/// What is offered in its place.
const NAMES: &CStr = c"CTR-DRBG";
const PROPERTIES: &CStr = c"provider=sysgenid";
const DESCRIPTION: &CStr = c"The default provider's CTR-DRBG, reseeded when the machine was cloned";

/// Parameters of the provider that no other one has.
const RESEEDS: &CStr = c"sysgenid-reseeds";
const UNCONFIRMED: &CStr = c"sysgenid-unconfirmed";

/// What the section of the configuration may have, and by what it is switched on.
const HASTEN: &CStr = c"hasten";
const YES: [&CStr; 4] = [c"1", c"yes", c"true", c"on"];

/// A function in a table, whose type its number tells.
type Function = Option<unsafe extern "C" fn()>;

/// The entry that ends a table.
const LAST: OSSL_DISPATCH = OSSL_DISPATCH {
    function_id: 0,
    function: None,
};

/// The entries of a table of functions.
///
/// # Safety
///
/// `table` is null, or a table with an entry 0 at its end, which lives as long as `'a`.
unsafe fn entries<'a>(table: *const OSSL_DISPATCH) -> impl Iterator<Item = &'a OSSL_DISPATCH> {
    let mut next = table;
    std::iter::from_fn(move || {
        // SAFETY: `next` is null or points to an entry that is at most the last one: it has not
        // moved on from that.
        let entry = unsafe { next.as_ref() }.filter(|entry| entry.function_id != 0)?;
        // SAFETY: This entry is not the last one, so there is one after it.
        next = unsafe { next.add(1) };
        Some(entry)
    })
}

/// Makes a struct of functions that are read from a table, with the types that OpenSSL's headers give
/// them.
macro_rules! functions {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ident = $number:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default)]
        struct $name { $($field: bindings::$type,)* }

        impl $name {
            /// Takes what is known of a table.
            ///
            /// # Safety
            ///
            /// `table` is null, or a table with an entry 0 at its end, whose functions have the types
            /// that belong to their numbers.
            unsafe fn read(table: *const OSSL_DISPATCH) -> Self {
                let mut functions = Self::default();
                // SAFETY: As the caller promises.
                for entry in unsafe { entries(table) } {
                    match entry.function_id {
                        // SAFETY: Both are pointers to functions or null, and the number says that it
                        // is one of this type.
                        $(bindings::$number => functions.$field = unsafe {
                            transmute::<Function, bindings::$type>(entry.function)
                        },)*
                        _ => {}
                    }
                }
                functions
            }
        }
    };
}

functions! {
    /// What the core does for a provider.
    Core {
        get_params: OSSL_FUNC_core_get_params_fn = OSSL_FUNC_CORE_GET_PARAMS,
        register_child_cb: OSSL_FUNC_provider_register_child_cb_fn
            = OSSL_FUNC_PROVIDER_REGISTER_CHILD_CB,
        deregister_child_cb: OSSL_FUNC_provider_deregister_child_cb_fn
            = OSSL_FUNC_PROVIDER_DEREGISTER_CHILD_CB,
        name: OSSL_FUNC_provider_name_fn = OSSL_FUNC_PROVIDER_NAME,
        context: OSSL_FUNC_provider_get0_provider_ctx_fn = OSSL_FUNC_PROVIDER_GET0_PROVIDER_CTX,
        dispatch: OSSL_FUNC_provider_get0_dispatch_fn = OSSL_FUNC_PROVIDER_GET0_DISPATCH,
        up_ref: OSSL_FUNC_provider_up_ref_fn = OSSL_FUNC_PROVIDER_UP_REF,
        free: OSSL_FUNC_provider_free_fn = OSSL_FUNC_PROVIDER_FREE,
    }
}

functions! {
    /// What is asked of the default provider.
    Default_ {
        query: OSSL_FUNC_provider_query_operation_fn = OSSL_FUNC_PROVIDER_QUERY_OPERATION,
    }
}

/// Makes the struct of the functions of a random number generator, and the table in which ours stand for
/// them.
macro_rules! rand_functions {
    ($($field:ident: $type:ident = $number:ident,)*) => {
        functions! {
            /// The functions of a random number generator.
            Rand { $($field: $type = $number,)* }
        }

        impl Rand {
            /// The table of ours. It has an entry where the table `theirs` has one: generators decide
            /// by that what they ask their parents for.
            ///
            /// # Safety
            ///
            /// As for [`Rand::read`].
            unsafe fn ours(theirs: *const OSSL_DISPATCH) -> Vec<OSSL_DISPATCH> {
                let mut table = Vec::new();
                // SAFETY: As the caller promises.
                for entry in unsafe { entries(theirs) } {
                    let function: Function = match entry.function_id {
                        // SAFETY: Both are pointers to functions; the number says which type it has.
                        $(bindings::$number => unsafe {
                            transmute::<bindings::$type, Function>(Some(thunks::$field))
                        },)*
                        // It has no context, so there is nothing to stand for.
                        bindings::OSSL_FUNC_RAND_GET_PARAMS => entry.function,
                        // One that this provider does not know would get a context that is not its
                        // own.
                        _ => continue,
                    };
                    table.push(OSSL_DISPATCH { function_id: entry.function_id, function });
                }
                table.push(LAST);
                table
            }
        }
    };
}

rand_functions! {
    newctx: OSSL_FUNC_rand_newctx_fn = OSSL_FUNC_RAND_NEWCTX,
    freectx: OSSL_FUNC_rand_freectx_fn = OSSL_FUNC_RAND_FREECTX,
    instantiate: OSSL_FUNC_rand_instantiate_fn = OSSL_FUNC_RAND_INSTANTIATE,
    uninstantiate: OSSL_FUNC_rand_uninstantiate_fn = OSSL_FUNC_RAND_UNINSTANTIATE,
    generate: OSSL_FUNC_rand_generate_fn = OSSL_FUNC_RAND_GENERATE,
    reseed: OSSL_FUNC_rand_reseed_fn = OSSL_FUNC_RAND_RESEED,
    nonce: OSSL_FUNC_rand_nonce_fn = OSSL_FUNC_RAND_NONCE,
    enable_locking: OSSL_FUNC_rand_enable_locking_fn = OSSL_FUNC_RAND_ENABLE_LOCKING,
    lock: OSSL_FUNC_rand_lock_fn = OSSL_FUNC_RAND_LOCK,
    unlock: OSSL_FUNC_rand_unlock_fn = OSSL_FUNC_RAND_UNLOCK,
    gettable_params: OSSL_FUNC_rand_gettable_params_fn = OSSL_FUNC_RAND_GETTABLE_PARAMS,
    gettable_ctx_params: OSSL_FUNC_rand_gettable_ctx_params_fn = OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS,
    settable_ctx_params: OSSL_FUNC_rand_settable_ctx_params_fn = OSSL_FUNC_RAND_SETTABLE_CTX_PARAMS,
    get_ctx_params: OSSL_FUNC_rand_get_ctx_params_fn = OSSL_FUNC_RAND_GET_CTX_PARAMS,
    set_ctx_params: OSSL_FUNC_rand_set_ctx_params_fn = OSSL_FUNC_RAND_SET_CTX_PARAMS,
    verify_zeroization: OSSL_FUNC_rand_verify_zeroization_fn = OSSL_FUNC_RAND_VERIFY_ZEROIZATION,
    get_seed: OSSL_FUNC_rand_get_seed_fn = OSSL_FUNC_RAND_GET_SEED,
    clear_seed: OSSL_FUNC_rand_clear_seed_fn = OSSL_FUNC_RAND_CLEAR_SEED,
}

/// This provider in one library context: what its `provctx` points to.
///
/// OpenSSL's threads share it. What is changed after it was made is atomic, or is set once.
struct Provider {
    handle: *const OSSL_CORE_HANDLE,
    core: Core,
    /// The default provider, once it is active in this library context.
    wrapped: OnceLock<Wrapped>,
    heed: Heed,
    name: CString,
    gettable: [OSSL_PARAM; 7],
    dispatch: [OSSL_DISPATCH; 5],
}

/// The default provider's `CTR-DRBG`.
struct Wrapped {
    /// # Invariants
    ///
    /// The provider, of which we hold a reference, and its context.
    handle: *const OSSL_CORE_HANDLE,
    context: *mut c_void,
    functions: Rand,
    /// What stands for them, and the algorithm that has it.
    ///
    /// # Invariants
    ///
    /// `algorithms` ends with an entry without names, and points to the table, which stays where it is.
    _table: Vec<OSSL_DISPATCH>,
    algorithms: [OSSL_ALGORITHM; 2],
}

impl Wrapped {
    /// The `CTR-DRBG` of a provider.
    ///
    /// # Safety
    ///
    /// `provider` is what the core that `core` belongs to gives as a provider.
    unsafe fn find(core: &Core, provider: *const OSSL_CORE_HANDLE) -> Option<Self> {
        // SAFETY: The core's functions take any provider of the core.
        let (dispatch, context) = unsafe { (core.dispatch?(provider), core.context?(provider)) };
        // SAFETY: This is the table that this provider has given to the core.
        let query = unsafe { Default_::read(dispatch) }.query?;
        let mut no_store = 0;
        // SAFETY: The context is the one of the provider that the function is of.
        let mut algorithm = unsafe { query(context, bindings::OSSL_OP_RAND, &raw mut no_store) };
        let table = loop {
            // SAFETY: It is null, or points to an entry that is at most the last one.
            let entry = unsafe { algorithm.as_ref() }?;
            if entry.algorithm_names.is_null() {
                return None;
            }
            // SAFETY: An entry that is not the last one has names, which are a string.
            let names = unsafe { CStr::from_ptr(entry.algorithm_names) }.to_string_lossy();
            if names.split(':').any(|name| name == WRAPPED_ALGORITHM) {
                break entry.implementation;
            }
            // SAFETY: It was not the last one.
            algorithm = unsafe { algorithm.add(1) };
        };
        // SAFETY: The core takes it. A provider that we hold keeps its tables.
        if unsafe { core.up_ref?(provider, 0) } == 0 {
            return None;
        }
        // SAFETY: This is a table of functions of a random number generator, because the provider was
        // asked for those.
        let (functions, ours) = unsafe { (Rand::read(table), Rand::ours(table)) };
        let offered = OSSL_ALGORITHM {
            algorithm_names: NAMES.as_ptr(),
            property_definition: PROPERTIES.as_ptr(),
            implementation: ours.as_ptr(),
            algorithm_description: DESCRIPTION.as_ptr(),
        };
        let last = OSSL_ALGORITHM {
            algorithm_names: ptr::null(),
            property_definition: ptr::null(),
            implementation: ptr::null(),
            algorithm_description: ptr::null(),
        };
        Some(Self {
            handle: provider,
            context,
            functions,
            _table: ours,
            algorithms: [offered, last],
        })
    }
}

/// Finds the default provider among those that are active, now and later.
///
/// # Safety
///
/// The core calls it, with what [`init`] has registered.
unsafe extern "C" fn provider_is_active(
    handle: *const OSSL_CORE_HANDLE,
    provider: *mut c_void,
) -> c_int {
    // SAFETY: This was registered with our provider, which is there until it is deregistered.
    let provider = unsafe { &*provider.cast::<Provider>() };
    let core = &provider.core;
    let Some(name) = core.name else { return 1 };
    // SAFETY: The core takes it, and its answer is a string.
    let name = unsafe { CStr::from_ptr(name(handle)) };
    if name == WRAPPED_PROVIDER && provider.wrapped.get().is_none() {
        // SAFETY: The core has given it.
        if let Some(wrapped) = unsafe { Wrapped::find(core, handle) } {
            // Nobody else sets it: the core calls this under its lock.
            let _ = provider.wrapped.set(wrapped);
        }
    }
    1
}

/// The default provider may be deactivated; as long as it is held, it works.
unsafe extern "C" fn provider_is_inactive(_: *const OSSL_CORE_HANDLE, _: *mut c_void) -> c_int {
    1
}

/// Properties are for what fetches; nothing here does.
unsafe extern "C" fn properties_changed(_: *const c_char, _: *mut c_void) -> c_int {
    1
}

/// The entry point of the module.
///
/// # Safety
///
/// For OpenSSL's core to call, as provider(7) says.
#[unsafe(no_mangle)]
unsafe extern "C" fn OSSL_provider_init(
    handle: *const OSSL_CORE_HANDLE,
    core: *const OSSL_DISPATCH,
    ours: *mut *const OSSL_DISPATCH,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: The core's table is as it must be.
    let core = unsafe { Core::read(core) };
    // A panic must not leave this function.
    let Ok(Some(provider)) = catch_unwind(|| init(handle, core)) else {
        return 0;
    };
    // SAFETY: The caller gives two places for these.
    unsafe {
        *ours = provider.as_ref().dispatch.as_ptr();
        *context = provider.as_ptr().cast();
    }
    1
}

fn init(handle: *const OSSL_CORE_HANDLE, core: Core) -> Option<NonNull<Provider>> {
    let options = if hastens(handle, &core) {
        Options::new().hasten()
    } else {
        Options::new()
    };
    let sysgenid = options.clone().open();
    let state = message::state(&sysgenid);
    message::tell(&state);
    let open = Box::new(move || options.clone().open().ok());
    let provider = Box::new(Provider {
        handle,
        core,
        wrapped: OnceLock::new(),
        heed: Heed::new(open, sysgenid.ok()),
        name: message::name(&state),
        gettable: gettable(),
        dispatch: dispatch(),
    });
    let provider = NonNull::from(Box::leak(provider));
    // SAFETY: The functions have the types that the core asks for, and the provider is there until
    // `teardown`, which deregisters them first.
    let registered = unsafe {
        core.register_child_cb?(
            handle,
            Some(provider_is_active),
            Some(provider_is_inactive),
            Some(properties_changed),
            provider.as_ptr().cast(),
        )
    };
    if registered == 0 {
        // SAFETY: It was leaked above, and nobody has got it.
        drop(unsafe { Box::from_raw(provider.as_ptr()) });
        return None;
    }
    Some(provider)
}

/// Whether the configuration says so.
fn hastens(handle: *const OSSL_CORE_HANDLE, core: &Core) -> bool {
    let Some(get_params) = core.get_params else {
        return false;
    };
    let mut text = ptr::null::<c_char>();
    let mut question = parameter(Some(HASTEN), bindings::OSSL_PARAM_UTF8_PTR, 0);
    question.data = (&raw mut text).cast();
    let mut params = [question, parameter(None, 0, 0)];
    // SAFETY: The handle is the core's, and the array ends with an entry without a key. The pointer
    // in the first entry is one to a place for a pointer, as its type says.
    let answered = unsafe { get_params(handle, params.as_mut_ptr()) } != 0;
    if !answered || text.is_null() {
        return false;
    }
    // SAFETY: It is a string of the configuration's, which the core keeps.
    let text = unsafe { CStr::from_ptr(text) };
    YES.contains(&text)
}

/// What the core can call of this provider.
fn dispatch() -> [OSSL_DISPATCH; 5] {
    let entry = |function_id, function| OSSL_DISPATCH {
        function_id,
        function,
    };
    // SAFETY: All are pointers to functions, of the types that belong to their numbers.
    unsafe {
        [
            entry(
                bindings::OSSL_FUNC_PROVIDER_TEARDOWN,
                transmute::<bindings::OSSL_FUNC_provider_teardown_fn, Function>(Some(teardown)),
            ),
            entry(
                bindings::OSSL_FUNC_PROVIDER_GETTABLE_PARAMS,
                transmute::<bindings::OSSL_FUNC_provider_gettable_params_fn, Function>(Some(
                    gettable_params,
                )),
            ),
            entry(
                bindings::OSSL_FUNC_PROVIDER_GET_PARAMS,
                transmute::<bindings::OSSL_FUNC_provider_get_params_fn, Function>(Some(get_params)),
            ),
            entry(
                bindings::OSSL_FUNC_PROVIDER_QUERY_OPERATION,
                transmute::<bindings::OSSL_FUNC_provider_query_operation_fn, Function>(Some(
                    query_operation,
                )),
            ),
            LAST,
        ]
    }
}

unsafe extern "C" fn teardown(provider: *mut c_void) {
    // SAFETY: `init` made it by Box, and this is the last call: every generator is gone.
    let provider = unsafe { Box::from_raw(provider.cast::<Provider>()) };
    let core = provider.core;
    if let Some(deregister) = core.deregister_child_cb {
        // SAFETY: The core takes back what was registered for this handle.
        unsafe { deregister(provider.handle) };
    }
    if let (Some(free), Some(wrapped)) = (core.free, provider.wrapped.get()) {
        // SAFETY: By its invariant, it is held since it was found.
        unsafe { free(wrapped.handle, 0) };
    }
}

unsafe extern "C" fn query_operation(
    provider: *mut c_void,
    operation: c_int,
    no_store: *mut c_int,
) -> *const OSSL_ALGORITHM {
    // SAFETY: The core gives the provider's context.
    let provider = unsafe { &*provider.cast::<Provider>() };
    let wrapped = provider.wrapped.get();
    // SAFETY: The core gives a place for it. Without the default provider there is nothing yet, and
    // the core must ask again.
    unsafe { *no_store = c_int::from(wrapped.is_none()) };
    match wrapped {
        Some(wrapped) if operation == bindings::OSSL_OP_RAND => wrapped.algorithms.as_ptr(),
        _ => ptr::null(),
    }
}

/// A parameter that can be asked for.
fn parameter(key: Option<&'static CStr>, data_type: c_int, size: usize) -> OSSL_PARAM {
    OSSL_PARAM {
        key: key.map_or(ptr::null(), CStr::as_ptr),
        data_type: data_type.unsigned_abs(),
        data: ptr::null_mut(),
        data_size: size,
        return_size: usize::MAX,
    }
}

fn gettable() -> [OSSL_PARAM; 7] {
    let text = |key| parameter(Some(key), bindings::OSSL_PARAM_UTF8_PTR, 0);
    let count = |key| {
        parameter(
            Some(key),
            bindings::OSSL_PARAM_UNSIGNED_INTEGER,
            size_of::<u64>(),
        )
    };
    [
        text(bindings::OSSL_PROV_PARAM_NAME),
        text(bindings::OSSL_PROV_PARAM_VERSION),
        text(bindings::OSSL_PROV_PARAM_BUILDINFO),
        parameter(
            Some(bindings::OSSL_PROV_PARAM_STATUS),
            bindings::OSSL_PARAM_INTEGER,
            size_of::<c_int>(),
        ),
        count(RESEEDS),
        count(UNCONFIRMED),
        parameter(None, 0, 0),
    ]
}

unsafe extern "C" fn gettable_params(provider: *mut c_void) -> *const OSSL_PARAM {
    // SAFETY: The core gives the provider's context.
    unsafe { &*provider.cast::<Provider>() }.gettable.as_ptr()
}

/// How many parameters an array has.
///
/// # Safety
///
/// `array` is null, or an array with an entry without a key at its end.
unsafe fn length(array: *const OSSL_PARAM) -> usize {
    let mut length = 0;
    if !array.is_null() {
        // SAFETY: The entry is at most the last one.
        while !unsafe { &*array.add(length) }.key.is_null() {
            length += 1;
        }
    }
    length
}

/// The parameters of an array that is to be answered.
///
/// # Safety
///
/// As for [`length`], and nobody else uses the array while `'a` lasts.
unsafe fn questions<'a>(array: *mut OSSL_PARAM) -> &'a mut [OSSL_PARAM] {
    // SAFETY: As the caller promises.
    match unsafe { length(array) } {
        0 => &mut [],
        // SAFETY: There are so many entries before the last one.
        length => unsafe { slice::from_raw_parts_mut(array, length) },
    }
}

/// A copy of the parameters of an array.
///
/// # Safety
///
/// As for [`length`].
unsafe fn copy(array: *const OSSL_PARAM) -> Vec<OSSL_PARAM> {
    // SAFETY: As the caller promises.
    match unsafe { length(array) } {
        0 => Vec::new(),
        // SAFETY: There are so many entries before the last one.
        length => unsafe { slice::from_raw_parts(array, length) }.to_vec(),
    }
}

/// Answers with a string that stays where it is.
fn set_text(parameter: &mut OSSL_PARAM, text: &CStr) -> bool {
    if parameter.data_type != bindings::OSSL_PARAM_UTF8_PTR.unsigned_abs() {
        return false;
    }
    parameter.return_size = text.count_bytes();
    let place = parameter.data.cast::<*const c_char>();
    if !place.is_null() {
        // SAFETY: A parameter of this type points to the place for a pointer.
        unsafe { *place = text.as_ptr() };
    }
    true
}

/// Answers with a number.
fn set_number(parameter: &mut OSSL_PARAM, number: u64) -> bool {
    let bytes = number.to_le_bytes();
    let integer = [
        bindings::OSSL_PARAM_INTEGER,
        bindings::OSSL_PARAM_UNSIGNED_INTEGER,
    ];
    if !integer
        .map(i32::unsigned_abs)
        .contains(&parameter.data_type)
    {
        return false;
    }
    if parameter.data.is_null() {
        parameter.return_size = bytes.len();
        return true;
    }
    let (size, needed) = (
        parameter.data_size,
        (64 - number.leading_zeros() as usize) / 8 + 1,
    );
    if size < needed {
        return false;
    }
    // SAFETY: A parameter of this type points to so many bytes, or to none.
    let place = unsafe { slice::from_raw_parts_mut(parameter.data.cast::<u8>(), size) };
    for (number, byte) in place.iter_mut().enumerate() {
        *byte = bytes.get(number).copied().unwrap_or_default();
    }
    #[cfg(target_endian = "big")]
    place.reverse();
    parameter.return_size = size;
    true
}

unsafe extern "C" fn get_params(provider: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version is a string"),
        };
    // SAFETY: The core gives the provider's context.
    let provider = unsafe { &*provider.cast::<Provider>() };
    // SAFETY: The core gives such an array.
    for parameter in unsafe { questions(params) } {
        // SAFETY: An entry that is not the last one has a key, which is a string.
        let key = unsafe { CStr::from_ptr(parameter.key) };
        let set = if key == bindings::OSSL_PROV_PARAM_NAME {
            set_text(parameter, &provider.name)
        } else if key == bindings::OSSL_PROV_PARAM_VERSION
            || key == bindings::OSSL_PROV_PARAM_BUILDINFO
        {
            set_text(parameter, VERSION)
        } else if key == bindings::OSSL_PROV_PARAM_STATUS {
            set_number(parameter, u64::from(provider.heed.is_on()))
        } else if key == RESEEDS {
            set_number(parameter, provider.heed.reseeds())
        } else if key == UNCONFIRMED {
            set_number(parameter, provider.heed.unconfirmed())
        } else {
            true
        };
        if !set {
            return 0;
        }
    }
    1
}

/// A generator: what the `vctx` of our functions points to.
struct Context {
    provider: NonNull<Provider>,
    functions: Rand,
    /// # Invariants
    ///
    /// A generator of the default provider, made by `functions`, and of no one else.
    wrapped: *mut c_void,
    known: Known,
    /// Whether somebody has locked it, if it has a lock.
    is_locked: AtomicBool,
}

impl Context {
    fn provider(&self) -> &Provider {
        // SAFETY: OpenSSL holds a provider as long as there is a generator of it.
        unsafe { self.provider.as_ref() }
    }

    #[inline]
    fn lock(&self) -> bool {
        if let Some(lock) = self.functions.lock {
            // SAFETY: The generator is the one that is wrapped.
            if unsafe { lock(self.wrapped) } == 0 {
                return false;
            }
        }
        self.is_locked.store(true, Ordering::Relaxed);
        true
    }

    #[inline]
    fn unlock(&self) {
        self.is_locked.store(false, Ordering::Relaxed);
        if let Some(unlock) = self.functions.unlock {
            // SAFETY: The generator is the one that is wrapped, and was locked.
            unsafe { unlock(self.wrapped) };
        }
    }
}

impl Generator for Context {
    fn entropy_length(&self) -> RangeInclusive<usize> {
        let ask = |key: &'static CStr| {
            let mut length = 0usize;
            let size = size_of_val(&length);
            let mut question = [
                parameter(Some(key), bindings::OSSL_PARAM_UNSIGNED_INTEGER, size),
                parameter(None, 0, 0),
            ];
            question[0].data = (&raw mut length).cast();
            let get = self.functions.get_ctx_params?;
            // SAFETY: The generator is the wrapped one, and the array is as it must be.
            let answered = unsafe { get(self.wrapped, question.as_mut_ptr()) };
            (answered != 0).then_some(length)
        };
        let least = ask(bindings::OSSL_DRBG_PARAM_MIN_ENTROPYLEN).unwrap_or_default();
        let most = ask(bindings::OSSL_DRBG_PARAM_MAX_ENTROPYLEN).unwrap_or(usize::MAX);
        least..=most
    }

    fn reseed(&self, entropy: &[u8]) -> bool {
        let Some(reseed) = self.functions.reseed else {
            return false;
        };
        let bytes = if entropy.is_empty() {
            ptr::null()
        } else {
            entropy.as_ptr()
        };
        // SAFETY: The generator is the wrapped one, and there are so many bytes.
        unsafe { reseed(self.wrapped, 0, bytes, entropy.len(), ptr::null(), 0) != 0 }
    }

    fn unlocked<T>(&self, wait: impl FnOnce() -> T) -> T {
        // Who draws has locked it, and nothing of it was used yet.
        let is_ours = self.is_locked.load(Ordering::Relaxed);
        if is_ours {
            self.unlock();
        }
        let waited = wait();
        if is_ours {
            // It fails for nobody but who has it already.
            let _ = self.lock();
        }
        waited
    }
}

/// The functions that stand for those of the wrapped generator.
///
/// For each of them holds: OpenSSL calls it as its headers say, with a context that `newctx` returned
/// and `freectx` has not got. A generator that is used by several threads at once has its lock
/// enabled, which is the wrapped one's. An entry is in our table only if the function that it stands
/// for is there, so what is returned otherwise is never seen.
mod thunks {
    use super::{
        AtomicBool, CStr, Cell, Context, Known, NonNull, OSSL_DISPATCH, OSSL_PARAM, Provider,
        WRAPPED_PROVIDER, Wrapped, bindings, c_int, c_uchar, c_uint, c_void, copy, parameter, ptr,
    };

    /// The context of a call.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn context<'a>(context: *mut c_void) -> &'a Context {
        // SAFETY: `newctx` made it.
        unsafe { &*context.cast::<Context>() }
    }

    /// Functions that do nothing but call the one they stand for.
    macro_rules! forward {
        ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $(, $otherwise:expr)?;)*) => { $(
            pub(super) unsafe extern "C" fn $name(
                vctx: *mut c_void
                $(, $argument: $type)*
            ) $(-> $result)? {
                // SAFETY: As all functions here.
                let context = unsafe { context(vctx) };
                match context.functions.$name {
                    // SAFETY: The generator is the one that is wrapped. The rest is the caller's.
                    Some(function) => unsafe { function(context.wrapped $(, $argument)*) },
                    None => { $($otherwise)? }
                }
            }
        )* };
    }

    forward! {
        uninstantiate() -> c_int, 0;
        reseed(
            prediction_resistance: c_int,
            entropy: *const c_uchar,
            entropy_length: usize,
            input: *const c_uchar,
            input_length: usize
        ) -> c_int, 0;
        enable_locking() -> c_int, 0;
        get_ctx_params(params: *mut OSSL_PARAM) -> c_int, 0;
        verify_zeroization() -> c_int, 0;
        clear_seed(buffer: *mut c_uchar, length: usize);
    }

    pub(super) unsafe extern "C" fn newctx(
        provctx: *mut c_void,
        parent: *mut c_void,
        parent_calls: *const OSSL_DISPATCH,
    ) -> *mut c_void {
        // SAFETY: OpenSSL gives the context of this provider, which is not null.
        let provider = unsafe { NonNull::new_unchecked(provctx.cast::<Provider>()) };
        // SAFETY: It is there as long as there is a generator of it.
        let Some(wrapped) = unsafe { provider.as_ref() }.wrapped.get() else {
            return ptr::null_mut();
        };
        let Some(newctx) = wrapped.functions.newctx else {
            return ptr::null_mut();
        };
        // SAFETY: This is the context of the provider that the function is of. A parent comes with its
        // own functions.
        let generator = unsafe { newctx(wrapped.context, parent, parent_calls) };
        if generator.is_null() {
            return ptr::null_mut();
        }
        let context = Box::new(Context {
            provider,
            functions: wrapped.functions,
            wrapped: generator,
            known: Known::nothing(),
            is_locked: AtomicBool::new(false),
        });
        Box::into_raw(context).cast()
    }

    pub(super) unsafe extern "C" fn freectx(vctx: *mut c_void) {
        if vctx.is_null() {
            return;
        }
        // SAFETY: `newctx` made it by Box, and OpenSSL does not use it any more.
        let context = unsafe { Box::from_raw(vctx.cast::<Context>()) };
        if let Some(freectx) = context.functions.freectx {
            // SAFETY: The generator is the one that is wrapped.
            unsafe { freectx(context.wrapped) };
        }
    }

    pub(super) unsafe extern "C" fn lock(vctx: *mut c_void) -> c_int {
        // SAFETY: As all functions here.
        c_int::from(unsafe { context(vctx) }.lock())
    }

    pub(super) unsafe extern "C" fn unlock(vctx: *mut c_void) {
        // SAFETY: As all functions here.
        unsafe { context(vctx) }.unlock();
    }

    pub(super) unsafe extern "C" fn instantiate(
        vctx: *mut c_void,
        strength: c_uint,
        prediction_resistance: c_int,
        personalization: *const c_uchar,
        personalization_length: usize,
        params: *const OSSL_PARAM,
    ) -> c_int {
        // SAFETY: As all functions here.
        let context = unsafe { context(vctx) };
        let Some(instantiate) = context.functions.instantiate else {
            return 0;
        };
        // SAFETY: OpenSSL gives such an array.
        let params = unsafe { for_wrapped(params) };
        let instantiated = || {
            // SAFETY: The generator is the one that is wrapped. The rest is the caller's.
            let instantiated = unsafe {
                instantiate(
                    context.wrapped,
                    strength,
                    prediction_resistance,
                    personalization,
                    personalization_length,
                    params.as_ptr(),
                )
            };
            instantiated != 0
        };
        let heed = &context.provider().heed;
        c_int::from(heed.seed(&context.known, instantiated))
    }

    pub(super) unsafe extern "C" fn generate(
        vctx: *mut c_void,
        out: *mut c_uchar,
        length: usize,
        strength: c_uint,
        prediction_resistance: c_int,
        input: *const c_uchar,
        input_length: usize,
    ) -> c_int {
        // SAFETY: As all functions here.
        let context = unsafe { context(vctx) };
        let Some(generate) = context.functions.generate else {
            return 0;
        };
        let draw = || {
            // SAFETY: The generator is the one that is wrapped. The rest is the caller's, who gets what
            // the last call has left in `out`.
            unsafe {
                generate(
                    context.wrapped,
                    out,
                    length,
                    strength,
                    prediction_resistance,
                    input,
                    input_length,
                )
            }
        };
        let heed = &context.provider().heed;
        heed.draw(&context.known, context, draw, drop)
    }

    pub(super) unsafe extern "C" fn nonce(
        vctx: *mut c_void,
        out: *mut c_uchar,
        strength: c_uint,
        least: usize,
        most: usize,
    ) -> usize {
        // SAFETY: As all functions here.
        let context = unsafe { context(vctx) };
        let Some(nonce) = context.functions.nonce else {
            return 0;
        };
        // SAFETY: The generator is the one that is wrapped. The rest is the caller's.
        let draw = || unsafe { nonce(context.wrapped, out, strength, least, most) };
        let heed = &context.provider().heed;
        heed.draw(&context.known, context, draw, drop)
    }

    pub(super) unsafe extern "C" fn get_seed(
        vctx: *mut c_void,
        buffer: *mut *mut c_uchar,
        entropy: c_int,
        least: usize,
        most: usize,
        prediction_resistance: c_int,
        input: *const c_uchar,
        input_length: usize,
    ) -> usize {
        // SAFETY: As all functions here.
        let context = unsafe { context(vctx) };
        let Some(get_seed) = context.functions.get_seed else {
            return 0;
        };
        let seed = Cell::new(ptr::null_mut::<c_uchar>());
        let draw = || {
            // SAFETY: The generator is the one that is wrapped, and puts a pointer where there is a
            // place for one. The rest is the caller's.
            unsafe {
                get_seed(
                    context.wrapped,
                    seed.as_ptr(),
                    entropy,
                    least,
                    most,
                    prediction_resistance,
                    input,
                    input_length,
                )
            }
        };
        let discard = |length| {
            if let (Some(clear), 1..) = (context.functions.clear_seed, length) {
                // SAFETY: This is what it has given, and so long it is.
                unsafe { clear(context.wrapped, seed.get(), length) };
            }
        };
        let heed = &context.provider().heed;
        let length = heed.draw(&context.known, context, draw, discard);
        if length > 0 {
            // SAFETY: The caller gives a place for a pointer.
            unsafe { *buffer = seed.get() };
        }
        length
    }

    pub(super) unsafe extern "C" fn set_ctx_params(
        vctx: *mut c_void,
        params: *const OSSL_PARAM,
    ) -> c_int {
        // SAFETY: As all functions here.
        let context = unsafe { context(vctx) };
        let Some(set_ctx_params) = context.functions.set_ctx_params else {
            return 1;
        };
        // SAFETY: OpenSSL gives such an array.
        let params = unsafe { for_wrapped(params) };
        // SAFETY: The generator is the one that is wrapped.
        unsafe { set_ctx_params(context.wrapped, params.as_ptr()) }
    }

    /// Parameters for the wrapped generator. Where OpenSSL tells a generator which provider it comes
    /// from, so that it takes its cipher from the same one, it hears of the default provider.
    ///
    /// # Safety
    ///
    /// `params` is null, or an array with an entry without a key at its end.
    unsafe fn for_wrapped(params: *const OSSL_PARAM) -> Vec<OSSL_PARAM> {
        // SAFETY: As the caller promises.
        let mut params = unsafe { copy(params) };
        for parameter in &mut params {
            // SAFETY: An entry that is not the last one has a key, which is a string.
            let key = unsafe { CStr::from_ptr(parameter.key) };
            if key == bindings::OSSL_PROV_PARAM_CORE_PROV_NAME {
                parameter.data = WRAPPED_PROVIDER.as_ptr().cast_mut().cast();
                parameter.data_size = WRAPPED_PROVIDER.count_bytes();
            }
        }
        params.push(parameter(None, 0, 0));
        params
    }

    /// The wrapped provider's context, and the generator that is wrapped by `vctx`, if there is one.
    ///
    /// # Safety
    ///
    /// `vctx` is null or as for all functions here, and `provctx` is the context of this provider.
    unsafe fn of_wrapped<'a>(
        vctx: *mut c_void,
        provctx: *mut c_void,
    ) -> Option<(&'a Wrapped, *mut c_void)> {
        // SAFETY: As the caller promises.
        let wrapped = unsafe { &*provctx.cast::<Provider>() }.wrapped.get()?;
        // SAFETY: As the caller promises.
        let context = unsafe { vctx.cast::<Context>().as_ref() };
        Some((wrapped, context.map_or(ptr::null_mut(), |it| it.wrapped)))
    }

    pub(super) unsafe extern "C" fn gettable_params(provctx: *mut c_void) -> *const OSSL_PARAM {
        // SAFETY: OpenSSL gives the context of this provider.
        match unsafe { of_wrapped(ptr::null_mut(), provctx) } {
            Some((wrapped, _)) => match wrapped.functions.gettable_params {
                // SAFETY: This is the context of the provider that the function is of.
                Some(function) => unsafe { function(wrapped.context) },
                None => ptr::null(),
            },
            None => ptr::null(),
        }
    }

    pub(super) unsafe extern "C" fn gettable_ctx_params(
        vctx: *mut c_void,
        provctx: *mut c_void,
    ) -> *const OSSL_PARAM {
        // SAFETY: OpenSSL gives the context of this provider, and a generator or null.
        match unsafe { of_wrapped(vctx, provctx) } {
            Some((wrapped, generator)) => match wrapped.functions.gettable_ctx_params {
                // SAFETY: Both are the wrapped ones.
                Some(function) => unsafe { function(generator, wrapped.context) },
                None => ptr::null(),
            },
            None => ptr::null(),
        }
    }

    pub(super) unsafe extern "C" fn settable_ctx_params(
        vctx: *mut c_void,
        provctx: *mut c_void,
    ) -> *const OSSL_PARAM {
        // SAFETY: OpenSSL gives the context of this provider, and a generator or null.
        match unsafe { of_wrapped(vctx, provctx) } {
            Some((wrapped, generator)) => match wrapped.functions.settable_ctx_params {
                // SAFETY: Both are the wrapped ones.
                Some(function) => unsafe { function(generator, wrapped.context) },
                None => ptr::null(),
            },
            None => ptr::null(),
        }
    }
}
