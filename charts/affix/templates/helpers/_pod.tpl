{{/* The strategy of a component's Deployment. Each field is written out: otherwise the API server's defaults differ from the manifest. */}}
{{- define "affix.strategy" -}}
{{- $values := index .root.Values .component }}
{{- if $values.strategy }}
{{- $strategy := deepCopy $values.strategy }}
{{- if eq ($strategy.type | default "RollingUpdate") "RollingUpdate" }}
{{- $rolling := $strategy.rollingUpdate | default dict }}
{{- $all := dict "maxUnavailable" (hasKey $rolling "maxUnavailable" | ternary $rolling.maxUnavailable "25%") }}
{{- $_ := set $all "maxSurge" (hasKey $rolling "maxSurge" | ternary $rolling.maxSurge "25%") }}
{{- $strategy = dict "type" "RollingUpdate" "rollingUpdate" $all }}
{{- end }}
{{- toYaml $strategy }}
{{- else if and (eq .component "controller") (not $values.leaderElection) }}
type: Recreate
{{- else }}
type: RollingUpdate
rollingUpdate:
  maxSurge: 25%
  maxUnavailable: {{ eq .component "controller" | ternary "25%" (ternary 1 0 $values.hostNetwork) }}
{{- end }}
{{- end }}

{{/* The pod settings of both components, without containers and volumes. */}}
{{- define "affix.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "affix.serviceAccountName" . }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with include "affix.imagePullSecrets" .root | trim }}
{{ . }}
{{- end }}
{{- if $values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- if not (kindIs "invalid" $values.hostUsers) }}
hostUsers: {{ $values.hostUsers }}
{{- end }}
{{- with $values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" $values.hostNetwork) }}
dnsPolicy: {{ . }}
{{- end }}
{{- range $field := list "dnsConfig" "hostAliases" "runtimeClassName" "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $values $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int $values.replicas) 1 }}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "affix.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- with $values.extraInitContainers }}
initContainers:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* The containers after the component's own, and the volumes, with "volumes" of the component. */}}
{{- define "affix.podRest" -}}
{{- $values := index .root.Values .component }}
{{- with $values.extraContainers }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- $volumes := .volumes | default list }}
{{- with include "affix.caConfigMap" .root }}
{{- $volumes = append $volumes (dict "name" "ca" "configMap" (dict "name" .)) }}
{{- end }}
{{- with concat $volumes ($values.extraVolumes | default list) }}
volumes:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* The ServiceAccount of a component. */}}
{{- define "affix.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "affix.metadata" (merge (dict "name" (include "affix.serviceAccountName" .) "labels" $account.labels "annotations" $account.annotations) .) | nindent 2 }}
{{- if not $account.automount }}
automountServiceAccountToken: false
{{- end }}
{{- end }}
{{- end }}

{{/* A PodDisruptionBudget for more than one replica. */}}
{{- define "affix.disruptionBudget" -}}
{{- $values := index .root.Values .component }}
{{- $budget := $values.podDisruptionBudget }}
{{- if and $budget.enabled (gt (int $values.replicas) 1) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "affix.metadata" (merge (dict "name" (printf "%s-%s" (include "affix.fullname" .root) .component)) .) | nindent 2 }}
spec:
  {{- if ne (toString $budget.minAvailable) "" }}
  minAvailable: {{ $budget.minAvailable }}
  {{- else }}
  maxUnavailable: {{ $budget.maxUnavailable }}
  {{- end }}
  unhealthyPodEvictionPolicy: {{ $budget.unhealthyPodEvictionPolicy }}
  selector:
    matchLabels:
      {{- include "affix.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{/*
A NetworkPolicy: "health" and the webhook's port are open. Peers of the webhook's port have a policy of their own if they are given, because
the chart does not know the addresses of the API server.
*/}}
{{- define "affix.networkPolicy" -}}
{{- $policy := .root.Values.networkPolicy }}
{{- $webhookFrom := ternary $policy.webhookFrom list (eq .component "webhook") }}
{{- if or $policy.enabled $webhookFrom }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "affix.metadata" (merge (dict "name" (printf "%s-%s" (include "affix.fullname" .root) .component)) .) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "affix.selector" . | nindent 6 }}
  policyTypes: {{ ternary "[Ingress, Egress]" "[Ingress]" $policy.enabled }}
  ingress:
  - ports:
    - {protocol: TCP, port: metrics}
    {{- with $policy.metricsFrom }}
    from:
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # For the kubelet's probes and the API server, which has no address that a policy could name.
  - ports:
    - {protocol: TCP, port: health}
    {{- if and (eq .component "webhook") (not $webhookFrom) }}
    - {protocol: TCP, port: webhook}
    {{- end }}
  {{- with $webhookFrom }}
  - ports:
    - {protocol: TCP, port: webhook}
    from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $policy.enabled }}
  egress:
  - ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
  - ports:
    {{- range $policy.egressPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
