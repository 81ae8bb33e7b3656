pub(crate) mod clients;
pub(crate) mod locks;
pub(crate) mod observer;
pub(crate) mod options;
pub(crate) mod referrers_support;
pub(crate) mod service;
pub(crate) mod session;
