//! A real API server with the CRD.

use affix::api::{ImageAttachment, ImageAttachmentSet, crds_yaml};
use affix_testbed::control_plane::ControlPlane;
use affix_testbed::tools::Tools;
use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, TypeMeta};
use kube::{Client, Config};
use serde_json::{Value, json};

/// A control plane with the CRD installed.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let plane = ControlPlane::start(&Tools::core().await.unwrap())
            .await
            .unwrap();
        plane
            .kubectl_with(["apply", "--server-side", "-f", "-"], crds_yaml())
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=300s",
            "crd/imageattachments.affix.dev",
            "crd/imageattachmentsets.affix.dev",
        ];
        plane.kubectl(wait).await.unwrap().stdout().unwrap();
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Self {
            plane,
            client: Client::try_from(config).unwrap(),
        }
    }

    /// Returns an untyped API, so that a spec is sent exactly as the corpus has it.
    pub(crate) fn api(&self) -> Api<DynamicObject> {
        Api::default_namespaced_with(
            self.client.clone(),
            &ApiResource::erase::<ImageAttachment>(&()),
        )
    }

    /// Runs `kubectl explain` until the API server has published the schema.
    pub(crate) async fn explain(&self, args: &[&str]) -> String {
        let mut tries = 0;
        loop {
            tries += 1;
            match self
                .plane
                .kubectl(args.iter().copied())
                .await
                .unwrap()
                .stdout()
            {
                Ok(text) => return text,
                Err(error) if tries == 60 => panic!("{error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
            }
        }
    }

    /// Creates an attachment as a dry run. A refusal is returned as fields and messages, without the causes that name no field.
    pub(crate) async fn try_create(
        &self,
        spec: &Value,
    ) -> Result<DynamicObject, Vec<(String, String)>> {
        self.try_object(&self.api(), &object("tried", spec)).await
    }

    /// Creates a set as a dry run.
    pub(crate) async fn try_set(
        &self,
        spec: &Value,
    ) -> Result<DynamicObject, Vec<(String, String)>> {
        let resource = ApiResource::erase::<ImageAttachmentSet>(&());
        let api = Api::default_namespaced_with(self.client.clone(), &resource);
        let mut set = object("tried", spec);
        set.types = Some(TypeMeta::resource::<ImageAttachmentSet>());
        self.try_object(&api, &set).await
    }

    async fn try_object(
        &self,
        api: &Api<DynamicObject>,
        object: &DynamicObject,
    ) -> Result<DynamicObject, Vec<(String, String)>> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        match api.create(&params, object).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .filter(|cause| cause.field != "<nil>")
                .map(|cause| (cause.field.clone(), cause.message.clone()))
                .collect()),
            Err(error) => panic!("the API server did not answer: {error}"),
        }
    }
}

pub(crate) fn object(name: &str, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name}, "spec": spec
    }))
    .unwrap()
}
