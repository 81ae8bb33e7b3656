//! The images that run in a cluster, and their state: out of life, ending soon, alive or unknown.
//!
//! `affix report` and the reports of the webhook use it. Pods are read in pages, and a page is reduced on arrival to the digests
//! that it adds, so that the memory follows the number of images and not that of pods (threat T36). Each image is looked up once,
//! whatever the number of its pods.
//!
//! | module | contents |
//! | --- | --- |
//! | `image_name` | image names as container runtimes read them |
//! | `pod` | the fields of a pod that are read |
//! | `running` | the images by digest, namespace and platform |
//! | `pages` | lists of the API server, page by page |
//! | `read` | nodes, pods and resources of a cluster |
//! | `lookup` | the marks of an image, with one login after the other |
//! | `signer` | the resources that sign an image |
//! | `finding` | the state of each image |
//! | `document` | findings as objects of OpenReports and of the policy working group |

mod document;
mod finding;
mod image_name;
mod lookup;
mod pages;
mod pod;
mod read;
mod running;
mod signer;

pub use document::ReportFormat;

pub(crate) use document::{MANAGED_BY, documents, is_own_name};
pub(crate) use finding::{Answers, Assessment, Finding, State, assess};
pub(crate) use image_name::{pinned, reference};
pub(crate) use lookup::{Answer, LookUps};
pub(crate) use read::{Scopes, read_images, read_platforms, read_signers};
pub(crate) use running::{ImageKey, RunningImage, RunningImages};
pub(crate) use signer::Signers;
