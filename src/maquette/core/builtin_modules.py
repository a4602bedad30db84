"""The modules that come with maquette: kind -> name -> "module:Class", imported only when asked for."""

BUILTIN_MODULES: dict[str, dict[str, str]] = {
    "data": {
        "random-camera-datamodule": "maquette.data.random_camera:RandomCameraDataModule",
        "toyworld-datamodule": "maquette.data.toyworld.datamodule:ToyworldDataModule",
    },
    "system": {
        "dreamfusion-system": "maquette.systems.dreamfusion:DreamFusion",
        "prior-vae-system": "maquette.systems.prior_vae:PriorVAE",
        "prior-unet-system": "maquette.systems.prior_unet:PriorUNet",
        "toy-classifier-system": "maquette.systems.toy_classifier:ToyClassifier",
    },
    "geometry": {
        "implicit-volume": "maquette.models.geometry.implicit_volume:ImplicitVolume",
    },
    "material": {
        "no-material": "maquette.models.materials.no_material:NoMaterial",
        "diffuse-with-point-light-material": (
            "maquette.models.materials.diffuse_with_point_light:DiffuseWithPointLightMaterial"
        ),
    },
    "background": {
        "solid-color-background": "maquette.models.backgrounds.solid_color:SolidColorBackground",
        "neural-environment-map-background": (
            "maquette.models.backgrounds.neural_environment_map:NeuralEnvironmentMapBackground"
        ),
    },
    "renderer": {
        "nerf-volume-renderer": "maquette.models.renderers.nerf_volume:NeRFVolumeRenderer",
    },
    "prompt-processor": {
        "stable-diffusion-prompt-processor": (
            "maquette.models.prompt_processors.stable_diffusion:StableDiffusionPromptProcessor"
        ),
    },
    "guidance": {
        "stable-diffusion-guidance": "maquette.models.guidance.stable_diffusion:StableDiffusionGuidance",
    },
    "exporter": {
        "mesh-exporter": "maquette.models.exporters.mesh:MeshExporter",
    },
}
