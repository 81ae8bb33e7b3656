{{/* The Secret with the webhook's certificate. */}}
{{- define "affix.certificateSecret" -}}
{{- .Values.webhook.certificate.secretName | default (printf "%s-webhook-tls" (include "affix.fullname" .)) }}
{{- end }}

{{/* The metadata of a webhook configuration. */}}
{{- define "affix.webhookMetadata" -}}
{{- $name := printf "%s-webhook" (include "affix.fullname" .) }}
{{- $own := dict }}
{{- if eq .Values.webhook.certificate.mode "cert-manager" }}
{{- $_ := set $own "cert-manager.io/inject-ca-from" (printf "%s/%s" (include "affix.namespace" .) $name) }}
{{- end }}
{{- $annotations := merge $own (.Values.webhook.configurationAnnotations | default dict) }}
{{- include "affix.metadata" (dict "root" . "component" "webhook" "name" $name "cluster" true "annotations" $annotations) }}
{{- end }}

{{/*
The settings of all webhooks: (dict "root" . "path" … "failurePolicy" … "label" …). The release's own namespace is exempt by its name, which
no other namespace can have. Labels only enable checks.
*/}}
{{- define "affix.webhook" -}}
{{- $w := .root.Values.webhook -}}
clientConfig:
  service:
    name: {{ include "affix.fullname" .root }}-webhook
    namespace: {{ include "affix.namespace" .root }}
    path: {{ .path }}
    port: 443
  {{- if eq $w.certificate.mode "secret" }}
  caBundle: {{ $w.certificate.caBundle | b64enc }}
  {{- end }}
matchPolicy: Equivalent
sideEffects: None
failurePolicy: {{ .failurePolicy | default $w.failurePolicy }}
timeoutSeconds: {{ $w.timeoutSeconds }}
admissionReviewVersions: [v1]
{{- $excluded := prepend $w.excludedNamespaces (include "affix.namespace" .root) | uniq }}
{{- $expressions := list (dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" $excluded) }}
{{- with .root.Values.watchNamespaces }}
{{- $expressions = prepend $expressions (dict "key" "kubernetes.io/metadata.name" "operator" "In" "values" .) }}
{{- end }}
{{- with .label }}
{{- $expressions = prepend $expressions . }}
{{- end }}
namespaceSelector:
  {{- with $w.namespaceSelector.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  matchExpressions:
  {{- concat $expressions ($w.namespaceSelector.matchExpressions | default list) | toYaml | nindent 2 }}
{{- end }}

{{/* The rules for the labels of namespaces. */}}
{{- define "affix.namespaceRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}

{{/* The rules for the status of ImageAttachments. */}}
{{- define "affix.attachmentRules" -}}
- apiGroups: [affix.dev]
  resources: [imageattachments]
  verbs: [list, watch]
{{- end }}

{{/* The rules for the status of ImageAttachments, the pods of a namespace that is labelled, and workloads that are scaled. */}}
{{- define "affix.webhookRules" -}}
{{ include "affix.attachmentRules" . }}
{{- if .Values.webhook.pods.enabled }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [apps]
  resources: [deployments, statefulsets, replicasets]
  verbs: [get]
- apiGroups: [""]
  resources: [replicationcontrollers]
  verbs: [get]
{{- end }}
{{- end }}

{{/* The rules for the pull secrets of pods. */}}
{{- define "affix.webhookSecretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}

{{/* The rules for the pull secrets of the webhook itself. */}}
{{- define "affix.pullSecretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ .Values.webhook.imagePullSecrets | toJson }}
  verbs: [get]
{{- end }}

{{/* The ServiceAccount whose identity the webhook has in a cloud. */}}
{{- define "affix.providerServiceAccount" -}}
{{- .Values.webhook.providerServiceAccount | default (include "affix.serviceAccountName" (dict "root" . "component" "webhook")) }}
{{- end }}

{{/* The rules for the tokens of this ServiceAccount. */}}
{{- define "affix.providerRules" -}}
{{- $names := list (include "affix.providerServiceAccount" .) | toJson -}}
- apiGroups: [""]
  resources: [serviceaccounts]
  resourceNames: {{ $names }}
  verbs: [get]
- apiGroups: [""]
  resources: [serviceaccounts/token]
  resourceNames: {{ $names }}
  verbs: [create]
{{- end }}

{{/* The rules for the Secret that the replicas share. RBAC cannot restrict a create to a name. */}}
{{- define "affix.certificateRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "affix.certificateSecret" . }}]
  verbs: [get, update]
{{- if or .Values.watchNamespaces (not .Values.webhook.pods.enabled) }}
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [{{ include "affix.fullname" . }}-webhook]
  verbs: [get]
{{- end }}
{{- end }}

{{/* The namespace of the self-check; empty without one. */}}
{{- define "affix.selfCheckNamespace" -}}
{{- $w := .Values.webhook }}
{{- if and $w.enabled $w.selfCheck.enabled $w.imageAttachments.enabled }}
{{- $w.selfCheck.namespace | default (first (.Values.watchNamespaces | default (list "default"))) }}
{{- end }}
{{- end }}

{{/* The rules for the dry run of the self-check: a server-side apply of one name. */}}
{{- define "affix.selfCheckRules" -}}
- apiGroups: [affix.dev]
  resources: [imageattachments]
  resourceNames: [affix-self-check]
  verbs: [create, patch]
{{- end }}

{{/* The Lease of the replica that writes reports. */}}
{{- define "affix.reportsLease" -}}
{{ include "affix.fullname" . }}-reports
{{- end }}

{{/* The rules for reports, in the cluster or in each namespace that is watched. */}}
{{- define "affix.reportRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- if eq .Values.webhook.reports.format "openreports" }}
- apiGroups: [openreports.io]
  resources: [reports]
{{- else }}
- apiGroups: [wgpolicyk8s.io]
  resources: [policyreports]
{{- end }}
  verbs: [list, create, patch, delete]
{{- end }}

{{/* The rules for the platforms of the nodes, which have no namespace. */}}
{{- define "affix.nodeRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}

{{/* The rules for the election of the replica that writes reports. RBAC cannot restrict a create to a name. */}}
{{- define "affix.reportElectionRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "affix.reportsLease" . }}]
  verbs: [get, update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [{{ include "affix.fullname" . }}-webhook]
  verbs: [get]
{{- end }}

{{/* The rules for its own configurations: their state, and the caBundle. */}}
{{- define "affix.bundleRules" -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [{{ include "affix.fullname" . }}-webhook]
  verbs: {{ ternary "[get, patch]" "[get]" (eq .Values.webhook.certificate.mode "self") }}
{{- end }}

{{/* Refuses times of which one cannot take effect. */}}
{{- define "affix.checkTimes" -}}
{{- $w := .Values.webhook }}
{{- $c := .Values.controller }}
{{- if and $w.enabled (ge (include "affix.milliseconds" $w.lookupTimeout | int64) (mul $w.timeoutSeconds 1000)) }}
{{- fail (printf "webhook.lookupTimeout (%s) must be less than webhook.timeoutSeconds (%v s): the API server would give up before the webhook; lower the first or raise the second" $w.lookupTimeout $w.timeoutSeconds) }}
{{- end }}
{{- if gt (include "affix.milliseconds" $c.minRetryDelay | int64) (include "affix.milliseconds" $c.maxRetryDelay | int64) }}
{{- fail (printf "controller.minRetryDelay (%s) must not exceed controller.maxRetryDelay (%s)" $c.minRetryDelay $c.maxRetryDelay) }}
{{- end }}
{{- end }}
