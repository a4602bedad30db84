"""The modules that come with maquette: kind -> name -> "module:Class", imported only when asked for."""

BUILTIN_MODULES: dict[str, dict[str, str]] = {
    "data": {
        "random-camera-datamodule": "maquette.data.random_camera:RandomCameraDataModule",
        "random-multiview-camera-datamodule": (
            "maquette.data.random_multiview_camera:RandomMultiviewCameraDataModule"
        ),
        "fixed-views-datamodule": "maquette.data.fixed_views:FixedViewsDataModule",
        "picture-folder-datamodule": "maquette.data.pictures:PictureFolderDataModule",
        "toyworld-captions-datamodule": "maquette.data.toyworld.caption_data:CaptionDataModule",
        "toyworld-datamodule": "maquette.data.toyworld.datamodule:ToyworldDataModule",
    },
    "system": {
        "dreamfusion-system": "maquette.systems.dreamfusion:DreamFusion",
        "magic3d-system": "maquette.systems.magic3d:Magic3D",
        "prolificdreamer-system": "maquette.systems.prolificdreamer:ProlificDreamer",
        "textmesh-system": "maquette.systems.textmesh:TextMesh",
        "gaussian-splatting-system": "maquette.systems.gaussian_splatting:GaussianSplattingSystem",
        "edit-system": "maquette.systems.edit:Edit",
        "playground-2d-system": "maquette.systems.playground_2d:Playground2D",
        "finetune-system": "maquette.systems.finetune:FineTune",
        "prior-vae-system": "maquette.systems.prior_vae:PriorVAE",
        "prior-unet-system": "maquette.systems.prior_unet:PriorUNet",
        "caption-model-system": "maquette.systems.caption_model:CaptionModel",
        "toy-classifier-system": "maquette.systems.toy_classifier:ToyClassifier",
    },
    "geometry": {
        "implicit-volume": "maquette.models.geometry.implicit_volume:ImplicitVolume",
        "implicit-sdf": "maquette.models.geometry.implicit_sdf:ImplicitSDF",
        "volume-grid": "maquette.models.geometry.volume_grid:VolumeGrid",
        "tetrahedra-sdf-grid": "maquette.models.geometry.tetrahedra_sdf_grid:TetrahedraSDFGrid",
        "custom-mesh": "maquette.models.geometry.custom_mesh:CustomMesh",
        "gaussian-splatting": "maquette.models.geometry.gaussian_splatting:GaussianSplatting",
    },
    "material": {
        "no-material": "maquette.models.materials.no_material:NoMaterial",
        "diffuse-with-point-light-material": (
            "maquette.models.materials.diffuse_with_point_light:DiffuseWithPointLightMaterial"
        ),
        "neural-radiance-material": "maquette.models.materials.neural_radiance:NeuralRadianceMaterial",
        "pbr-material": "maquette.models.materials.pbr:PBRMaterial",
        "hybrid-rgb-latent-material": "maquette.models.materials.hybrid_rgb_latent:HybridRGBLatentMaterial",
        "sd-latent-adapter-material": (
            "maquette.models.materials.sd_latent_adapter:StableDiffusionLatentAdapterMaterial"
        ),
        "gaussian-diffuse-with-point-light-material": (
            "maquette.models.materials.gaussian_diffuse:GaussianDiffuseWithPointLightMaterial"
        ),
    },
    "background": {
        "solid-color-background": "maquette.models.backgrounds.solid_color:SolidColorBackground",
        "neural-environment-map-background": (
            "maquette.models.backgrounds.neural_environment_map:NeuralEnvironmentMapBackground"
        ),
        "textured-background": "maquette.models.backgrounds.textured:TexturedBackground",
    },
    "renderer": {
        "nerf-volume-renderer": "maquette.models.renderers.nerf_volume:NeRFVolumeRenderer",
        "neus-volume-renderer": "maquette.models.renderers.neus_volume:NeuSVolumeRenderer",
        "mesh-rasterizer": "maquette.models.renderers.mesh_rasterizer:MeshRasterizer",
        "nvdiff-rasterizer": "maquette.models.renderers.mesh_rasterizer:MeshRasterizer",
        "deferred-shading-rasterizer": (
            "maquette.models.renderers.deferred_shading:DeferredShadingRasterizer"
        ),
        "patch-renderer": "maquette.models.renderers.patch:PatchRenderer",
        "diff-gaussian-rasterizer": "maquette.models.renderers.gaussian_rasterizer:GaussianRasterizer",
        "diff-gaussian-rasterizer-advanced": (
            "maquette.models.renderers.gaussian_rasterizer:GaussianRasterizerAdvanced"
        ),
        "diff-gaussian-rasterizer-background": (
            "maquette.models.renderers.gaussian_rasterizer:GaussianRasterizerBackground"
        ),
        "diff-gaussian-rasterizer-shading": (
            "maquette.models.renderers.gaussian_rasterizer:GaussianRasterizerShading"
        ),
    },
    "prompt-processor": {
        "deep-floyd-prompt-processor": (
            "maquette.models.prompt_processors.deep_floyd:DeepFloydPromptProcessor"
        ),
        "dummy-prompt-processor": "maquette.models.prompt_processors.dummy:DummyPromptProcessor",
        "stable-diffusion-prompt-processor": (
            "maquette.models.prompt_processors.stable_diffusion:StableDiffusionPromptProcessor"
        ),
    },
    "guidance": {
        "stable-diffusion-guidance": "maquette.models.guidance.stable_diffusion:StableDiffusionGuidance",
        "deep-floyd-guidance": "maquette.models.guidance.deep_floyd:DeepFloydGuidance",
        "edit-guidance": "maquette.models.guidance.edit:EditGuidance",
        "stable-diffusion-sdi-guidance": (
            "maquette.models.guidance.stable_diffusion_sdi:StableDiffusionSDIGuidance"
        ),
        "stable-diffusion-vsd-guidance": (
            "maquette.models.guidance.stable_diffusion_vsd:StableDiffusionVSDGuidance"
        ),
        "stable-diffusion-unified-guidance": (
            "maquette.models.guidance.unified:StableDiffusionUnifiedGuidance"
        ),
        "zero123-guidance": "maquette.models.guidance.zero123:Zero123Guidance",
        "stable-zero123-guidance": "maquette.models.guidance.stable_zero123:StableZero123Guidance",
        "zero123-unified-guidance": "maquette.models.guidance.zero123_unified:Zero123UnifiedGuidance",
        "stable-diffusion-controlnet-guidance": "maquette.models.guidance.controlnet:ControlNetGuidance",
        "stable-diffusion-instructpix2pix-guidance": (
            "maquette.models.guidance.instructpix2pix:InstructPix2PixGuidance"
        ),
        "multiview-diffusion-guidance": "maquette.models.guidance.multiview:MultiViewGuidance",
    },
    "exporter": {
        "mesh-exporter": "maquette.models.exporters.mesh:MeshExporter",
        "gaussian-mesh-exporter": "maquette.models.exporters.gaussian_mesh:GaussianMeshExporter",
        "dummy-exporter": "maquette.models.exporters.dummy:DummyExporter",
    },
}
