//! Links the HTTP functions that guests import: the engine's, and replacements for a
//! few that the engine leaves unbounded or unfinished.

use exosphere_domain::grant::MAX_PATH_BYTES;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, HostOutgoingRequest as _, IoError, Method,
};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{Error, WasiHttpView};

/// The interface under the engine's own version. Guests of any 0.2 version find it. The
/// tests notice if the engine moves to another version.
const TYPES: &str = "wasi:http/types@0.2.12";

/// Maximum bytes of a method's name.
const METHOD_BYTES: usize = 32;

/// Maximum bytes of an authority: the longest name, brackets, a port.
const AUTHORITY_BYTES: usize = 300;

type This = Resource<HostOutgoingRequest>;
type Text = Option<String>;

/// Links every import that a guest needs to make requests.
pub(crate) fn link<T: WasiHttpView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    bound_setters(&mut types)?;
    types.func_wrap("http-error-code", error_code)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Bounds the texts of a request, which the engine stores unchecked: a guest could
/// otherwise fill the host's memory with requests that it never sends.
fn bound_setters<T: WasiHttpView + 'static>(
    types: &mut LinkerInstance<'_, T>,
) -> wasmtime::Result<()> {
    let fits =
        |text: &Text, max_bytes: usize| text.as_ref().is_none_or(|text| text.len() <= max_bytes);
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: StoreContextMut<'_, T>, (this, method): (This, Method)| {
            let is_long = matches!(&method, Method::Other(name) if name.len() > METHOD_BYTES);
            let mut http = store.data_mut().http();
            Ok((if is_long { Err(()) } else { http.set_method(this, method)? },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        move |mut store: StoreContextMut<'_, T>, (this, text): (This, Text)| {
            let fits = fits(&text, AUTHORITY_BYTES);
            let mut http = store.data_mut().http();
            Ok((if fits { http.set_authority(this, text)? } else { Err(()) },))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        move |mut store: StoreContextMut<'_, T>, (this, text): (This, Text)| {
            let fits = fits(&text, MAX_PATH_BYTES);
            let mut http = store.data_mut().http();
            Ok((if fits { http.set_path_with_query(this, text)? } else { Err(()) },))
        },
    )
}

/// Returns the error code of a body that broke off. The engine puts one error type into
/// a stream and looks for another here, so its own function would tell the guest
/// nothing.
fn error_code<T: WasiHttpView + 'static>(
    mut store: StoreContextMut<'_, T>,
    (error,): (Resource<IoError>,),
) -> wasmtime::Result<(Option<ErrorCode>,)> {
    let view = store.data_mut().http();
    let code = view.table.get(&error)?.downcast_ref().map(|error| match error {
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpResponseBodySize(size) => ErrorCode::HttpResponseBodySize(*size),
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        _ => ErrorCode::HttpProtocolError,
    });
    Ok((code,))
}
